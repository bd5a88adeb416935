"""A run from its first stage to its verdict.

start ──▶ drive: preflight ▶ submit ▶ follow ▶ evaluate ▶ report
            │       └─ gates: the plan's budget, a baseline that meets the target
            └─ fallback: the next provider, when the first refuses or fails for good

job · stopping   the job at the provider, and what stops a run on its way
evaluate    the evaluation inside a run        observer   what progress is reported to
probe       a few measured steps for a plan    chat · export · summary   what is done with a run afterwards
"""
