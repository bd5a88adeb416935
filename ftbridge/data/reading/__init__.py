"""Records from files, archives, URLs and hubs: JSON Lines, JSON, CSV, Parquet and spreadsheets, compressed or not."""
