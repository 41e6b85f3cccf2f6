"""Train codec, judge, teacher and students on a GPU that is available for minutes, in resumable slices."""
