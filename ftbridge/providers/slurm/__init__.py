"""Training on a Slurm cluster by its own commands: `sbatch`, `squeue`, `scontrol` and `scancel`.

The job's comment carries the launch's name, so that a submission that was cut short is found again. Slurm forgets a job some
minutes after its end and keeps accounts at few sites: what happened is read from the run folder, never from `sacct`.

scheduler    sbatch's options and script, squeue's rows
provider     the cluster provider with this scheduler, and the mapping of the spec's slurm section
"""
