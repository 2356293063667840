"""Why RabbitMQ could not be connected to, in words for whoever set RABBITMQ_URL."""

from __future__ import annotations

import pika.exceptions

#: It is there, and says no.
_REFUSED = (
    pika.exceptions.ProbableAccessDeniedError,
    pika.exceptions.ProbableAuthenticationError,
    pika.exceptions.AuthenticationError,
)
#: AMQP's reply codes for the same: ACCESS_REFUSED and NOT_ALLOWED (no such virtual host).
_REFUSALS = (403, 530)


def why_no_connection(error: Exception) -> str:
    """One line without the address, which holds the password. `error`: what pika raised."""
    says_no = isinstance(error, pika.exceptions.ConnectionClosedByBroker) and error.reply_code in _REFUSALS
    if says_no or isinstance(error, _REFUSED):
        return "RabbitMQ refuses the connection: no such user, password or virtual host"
    return f"RabbitMQ does not answer ({type(error).__name__})"
