"""Publishing what a profile trains: the sizes are the profile's."""

from dataclasses import replace

from mobivid_core import artifacts
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.profiles import get_profile
from mobivid_core.train.publish import publish_vae


def test_the_vae_has_the_profiles_sizes_and_its_encoding_net(tmp_path, monkeypatch):
    monkeypatch.setenv("MOBIVID_RUNS", str(tmp_path))
    profile = replace(get_profile("smoke"), vae_steps=1, vae_width=8, vae_encoder_width=6, vae_channels=4)
    made = publish_vae(profile)
    assert (made.config.width, made.config.encoder_width, made.config.latent_channels) == (8, 6, 4)
    kept = artifacts.load_model(MobiVidVAE, artifacts.find("vae", "smoke").path)
    assert kept.config.encoder_width == 6
