"""Training on a Slurm cluster by its own commands: `sbatch`, `squeue`, `scontrol` and `scancel`.

The job's name and its comment carry the launch's name, so that a submission that was cut short is found again. Slurm forgets a job
some minutes after its end and keeps accounts at few sites: what happened is read from the run folder, never from `sacct`.
"""
