"""EVE's remote services as values: ESI (killmails, names, status), EVE SSO (login, tokens), and ESI's rate limits.

Nothing in here knows users, syncs or actors, and nothing outside speaks HTTP to EVE. The public addresses are
https://esi.evetech.net and https://login.eveonline.com; their documentation is at https://developers.eveonline.com/docs.
"""
