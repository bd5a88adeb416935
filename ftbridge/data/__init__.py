"""Training data, from any file to canonical examples.

examples     the three shapes of an example, validated     detect     the method and format of a line
reading/     records from files, archives, URLs and hubs   convert/   any known format to canonical JSON Lines, and back
detect reads known_formats (one table) · field_names; file_kinds tells what contains no records
prepare      canonical splits with a SHA-256 each          lint/      rules, findings and fixes
notation · call_forms/   tool calls and reasoning as models write them
"""
