"""The routes of OpenAI's API, a file for each group, and the page that documents them."""
