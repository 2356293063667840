"""The web pages: login, dashboard, health, metrics. Plain HTML that works without scripts; live updates are added."""
