"""Step distillation: forty guided steps of the teacher become four unguided steps of the student.

Paper: the section on adversarial step distillation (claims C23, C24, C30, C31 in data/paper/claims.csv).
The folder reads in the order of the method:

* `baselines`, `free`, `knots`: what few steps cost without any training, and the best samplers among those;
* `trajectory`: where the guided teacher goes from a given noise and caption;
* `regression`: a student that jumps along that trajectory in four steps, guidance folded in;
* `discriminator`: light heads on the frozen teacher's features at several depths;
* `adversarial`: the losses that push the student's samples among real ones;
* `trainer`: one resumable loop for regression, adversarial, or both;
* `alternatives`: consistency and distribution matching, the two best known ones;
* `own_states`: chords from the states that the student reaches itself;
* `student`: how a four-step student is stored, loaded and sampled (`FOUR_STEPS`);
* `recipe`: the whole distillation, also as `mobivid distill`.

The sampling loop itself is `flow.sampling`; comparisons of all losses at equal compute are in `studies`.
"""
