"""The commands of `ssm-edu`, a file each; what they do stands elsewhere, and loads when they run."""
