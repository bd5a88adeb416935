"""Training on a Ray cluster by its Jobs API over HTTP. Ray itself is not imported, and need not be installed where ftbridge is.

A job's submission id is the launch's name, chosen here: asked twice for one, Ray refuses the second. Ray does not start a job
again that died with its node or its cluster, so the run fails and is resumed from its checkpoint.

scheduler    requests to the Jobs API, and the shell command of a job
provider     the cluster provider with this scheduler, and the mapping of the spec's ray section
"""
