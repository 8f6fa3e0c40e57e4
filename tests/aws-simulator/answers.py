"""Answers in the XML of the query protocol."""

from email.utils import formatdate
from uuid import uuid4
from xml.sax.saxutils import escape


class Refusal(Exception):
    def __init__(self, status, code, message, sender=True):
        super().__init__(code)
        self.status, self.code, self.message, self.sender = status, code, message, sender

    def answer(self):
        kind = "Sender" if self.sender else "Receiver"
        content = (
            '<ErrorResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Error>'
            f"<Type>{kind}</Type><Code>{self.code}</Code><Message>{escape(self.message)}</Message>"
            f"</Error><RequestId>{uuid4()}</RequestId></ErrorResponse>"
        )
        return self.status, [("Content-Type", "text/xml")], content.encode()


def answer(action, result="", service="iam"):
    """A success; `result` is XML."""
    space = "https://iam.amazonaws.com/doc/2010-05-08/" if service == "iam" else "https://sts.amazonaws.com/doc/2011-06-15/"
    inside = f"<{action}Result>{result}</{action}Result>" if result else ""
    content = (
        f'<{action}Response xmlns="{space}">{inside}'
        f"<ResponseMetadata><RequestId>{uuid4()}</RequestId></ResponseMetadata></{action}Response>"
    )
    return 200, [("Content-Type", "text/xml")], content.encode()


def httpdate(moment):
    return formatdate(moment, usegmt=True)


def element(name, value):
    return f"<{name}>{escape(str(value))}</{name}>"
