"""Training on this machine or a GPU of your own, in child processes. torch and transformers are imported in this package alone.

lower · request     the field mapping, and the request that a worker reads
process/            provider, job, worker: a job is a child process and a folder of records
data/               chat templates, token ids and loss masks
models/             base models: found, loaded, fitted to the device
training/           the loop, its objectives, checkpoints
inference/          the one engine that completes prompts
export/             weights for other programs
"""
