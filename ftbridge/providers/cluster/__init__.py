"""Training by a cluster's scheduler: the local provider's worker, started on another machine over a shared run folder.

    this machine                          shared storage                      a node of the cluster
    ClusterProvider ── submit ──▶ scheduler ─────────────────────────────────▶ node ─▶ the local provider's worker
          │            (Scheduler)    RUN/local/       request, control ───────────────────▲   │
          │                           RUN/cluster/     launches.jsonl, by this side alone      │
          └────── poll · events ────  RUN/worker.jsonl worker.log checkpoints/ ◀───────────────┘

scheduler    the contract of a scheduler: Slurm and Ray each have one
launches     the journal of submissions: intent with a name, then the scheduler's id
provider     everything of a provider that does not depend on the scheduler
node         what runs on the node around the worker

The worker's records are authoritative. The scheduler is asked one thing: is the job queued, running or gone. No decision
but the hours of a budget compares clocks of two machines.
"""
