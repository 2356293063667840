"""The GraphQL API: binds `schema.graphql`, over HTTP and over WebSocket (graphql-transport-ws).

It reads the database and asks for syncs; it fetches nothing itself. Who may see what is decided here, per viewer, for
every door: a viewer sees the killmails that stood in their own lists, their own syncs, and nothing of anybody else.
"""
