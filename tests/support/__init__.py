"""What tests share: places, data, the command in child processes, services, jobs, tiny models, and a third-party provider."""
