"""The measured claims, one script each: `python -m benchmarks.b01_first_sync [--quick]`, or all of them: `make bench`.

Every claim is a ratio, or a bound a person would notice, taken in one run on one machine, on the real processes,
PostgreSQL and RabbitMQ, with the simulator in a process of its own. Absolute times drift; they are printed for the
curious. A run that lost or doubled anything is void: it raises, and no figure comes of it.
"""
