"""Reference parts at paper scale: counted on the meta device, against sizes known elsewhere."""

from mobivid_core.phone import references

GRID = (7, 12, 16)


def test_clip_text_encoder_has_the_published_number_of_parameters():
    """123,060,480: transformers' `CLIPTextModel` at CLIP ViT-L/14's sizes."""
    assert references.clip_text_counts(77).params == 123_060_480


def test_the_light_decoder_is_light():
    light, ltx = references.light_decoder_counts(GRID), references.ltx_decoder_counts(GRID)
    assert light.flops < ltx.flops / 4
    assert 8.4e12 < ltx.flops < 8.6e12  # about 8.5 TFLOP for 49x512x384
