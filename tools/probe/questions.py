"""The questions to AWS: what Emissary assumes, how it is found out, and what follows if it is not so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tools.probe import experiments, verdicts
from tools.probe.probe import Probe
from tools.probe.verdict import Findings, Verdict


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Attributes:
        number: By which it is known.
        text: The question.
        assumes: What Emissary assumes.
        otherwise: What follows for Emissary if that does not hold.
        experiment: Does what is needed, and returns what it found.
        judge: Makes a verdict of that.
        by_hand: How to find it out without the account; empty if the stack's URL is enough.
    """

    number: int
    text: str
    assumes: str
    otherwise: str
    experiment: Callable[[Probe], Findings]
    judge: Callable[[Findings], Verdict]
    by_hand: str = ""

    @property
    def needs_account(self) -> bool:
        """Whether the experiment asks AWS as the stack's owner."""
        return bool(self.by_hand)


QUESTIONS: Final = (
    Question(
        1,
        "Do messages of several frames get in, and where are the edges of 32 KB and 128 KB?",
        "A message of 126,000 characters in frames of 31,000 gets in whole.",
        "Both sides find out and go on with messages of one frame: slower, nothing lost.",
        experiments.messages_in,
        verdicts.messages_in,
    ),
    Question(
        2,
        "Do posts of more than 32 KB get out, and whole?",
        "A post of 126,000 characters reaches the client whole.",
        "As for 1, on the way out.",
        experiments.messages_out,
        verdicts.messages_out,
    ),
    Question(
        3,
        "What becomes of data that is not UTF-8, and of binary frames?",
        "Bytes do not get through as they are, so everything is sent as base64.",
        "Harmless: the third that base64 adds could be saved.",
        experiments.not_text,
        verdicts.not_text,
    ),
    Question(
        4,
        "Which statuses of $connect reach the client?",
        "The status that the function answers is the upgrade's.",
        "A dialer gives the wrong reason, or tries again what is final.",
        experiments.statuses,
        verdicts.statuses,
    ),
    Question(
        5,
        "Do posts one after another keep their order, and how long does one take?",
        "Each that was taken arrives once; nothing depends on their order.",
        "What is lost is sent again; if posts take longer, the figures for the speed are too high.",
        experiments.serial_posts,
        verdicts.serial_posts,
    ),
    Question(
        6,
        "What does throttling look like: an error frame, a close with 1008, nothing?",
        "Each message that is not let through is answered by an error frame, and the connection stays.",
        "After 1008 a dialer comes back late and sends little; what is lost in silence it sends again.",
        experiments.throttled,
        verdicts.throttled,
    ),
    Question(
        7,
        "What does the client get when a function fails, or runs for longer than 29 s?",
        "A text message that is a JSON object with a message.",
        "A dialer waits for its timer instead of sending again at once.",
        experiments.failures,
        verdicts.failures,
    ),
    Question(
        8,
        "Has API Gateway's own name AAAA records, and does a function without a VPC get by?",
        "It has, so a relay can dial back over IPv6; a function without IPv6 uses the others.",
        "A relay in a subnet without NAT needs a custom domain that is dual-stack.",
        experiments.names,
        verdicts.names,
    ),
    Question(
        9,
        "With which close code does DELETE end a connection?",
        "$disconnect is told neither 1001 nor 1006: those are losses, after which somebody may come back.",
        "A session whose relay was cut off keeps its place until the grace is over.",
        experiments.deletion,
        verdicts.deletion,
    ),
    Question(
        10,
        "Do pings hold a connection for longer than 10 minutes?",
        "They do not, messages do, so the protocol has a PING of its own.",
        "Harmless if pings do hold it; if messages do not, each quiet tunnel is cut and resumed.",
        experiments.pings,
        verdicts.pings,
    ),
    Question(
        11,
        "What does an update of the stack do to an open connection?",
        "It lives on, or is cut in a way after which both sides come back at once.",
        "Tunnels pause or end at an upgrade.",
        experiments.update,
        verdicts.update,
        "keep a connection open while you deploy the stack with another Revision, and look for a close frame",
    ),
    Question(
        12,
        "How much does the gateway take for a client that does not read, and how fast is one connection?",
        "What it takes arrives; what it does not take is refused with LimitExceededException (429).",
        "Relays slow down for the wrong reason, or take their client to be gone.",
        experiments.rates,
        verdicts.rates,
    ),
    Question(
        13,
        "Does ALL_OLD on a failed condition need GetItem?",
        "PutItem and UpdateItem are enough, also in a transaction.",
        "$connect needs dynamodb:GetItem on the session table as well.",
        experiments.conditions,
        verdicts.conditions,
    ),
    Question(
        14,
        "Do metrics in the log survive the JSON log format without Lambda's own lines?",
        "They do, so those lines are left out of the log of $default.",
        "Its metrics (PeerThrottled, ends of sessions) are missing until its LoggingConfig is taken out.",
        experiments.metrics,
        verdicts.metrics,
        'send {"op": "metric", "run": "1"}, and look for the namespace EmissaryProbe in CloudWatch',
    ),
    Question(
        15,
        "Is a refused connect metered, and what is billed for data out?",
        "A refused connect costs no message; data out is billed by its bytes on the wire.",
        "A flood of refused connects costs the more of the two figures in docs/security.md.",
        experiments.bill,
        verdicts.bill,
    ),
    Question(
        16,
        "Does Lambda take a timeout of 1,800 s here?",
        "It does, so RelayTimeout can be up to 1800; it is 900 unless it is given.",
        "A RelayTimeout above 900 fails the deployment, which is rolled back; the default does not.",
        experiments.longest_timeout,
        verdicts.longest_timeout,
        "aws lambda update-function-configuration --timeout 1800, for the function of the stack",
    ),
    Question(
        17,
        "Are the variables of the access log's format known to API Gateway?",
        "They are, so AccessLogs=true deploys.",
        "With AccessLogs=true the stack is rolled back.",
        experiments.access_log,
        verdicts.access_log,
        "deploy Emissary with AccessLogs=true: the refusal names the variable",
    ),
)
