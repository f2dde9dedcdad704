"""The page that a server shows to people: static files, and what is known of them. Nothing here knows HTTP."""
