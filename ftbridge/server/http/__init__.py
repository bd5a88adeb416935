"""HTTP itself: validated bodies, multipart uploads, pages, errors, keys and sockets."""
