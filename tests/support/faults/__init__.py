"""Long campaigns of faults: a service with its ledger, a proxy that breaks connections, seeded schedules."""
