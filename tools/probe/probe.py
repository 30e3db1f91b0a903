"""What every experiment is given: ways to the stack, and how long the long ones take."""

from __future__ import annotations

from dataclasses import dataclass, field

from tools.probe.account import Account
from tools.probe.connection import Connection, Tally


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take, in seconds: AWS's own times, unless a local cloud has scaled them.

    Attributes:
        sleep: How long a function sleeps that is to meet API Gateway's 29 s.
        idle: How long a connection is watched that is to meet the 10 idle minutes.
        patience: Longest wait for an answer.
        settle: How long to wait for what may come, and need not.
    """

    sleep: float = 31.0
    idle: float = 700.0
    patience: float = 60.0
    settle: float = 3.0


@dataclass(frozen=True, slots=True)
class Probe:
    """One run.

    Attributes:
        url: Of the stack's stage, ``wss://``.
        pace: How long things take.
        account: The stack as its owner sees it; None without credentials.
        tally: Counts what the run sends and receives.
    """

    url: str
    pace: Pace = Pace()
    account: Account | None = None
    tally: Tally = field(default_factory=Tally)

    def open(self, query: str = "", *, receive_buffer: int | None = None) -> Connection:
        """A new WebSocket.

        Raises:
            UpgradeRefusedError: It was refused.
            ProbeError: Nobody answered.
        """
        return Connection(
            self.url + query, self.tally, patience=self.pace.patience, receive_buffer=receive_buffer
        )

    def owned(self) -> Account:
        """The account; only for experiments of questions that need it.

        Raises:
            ValueError: There is none.
        """
        if self.account is None:
            raise ValueError("this experiment needs the stack's name and credentials")
        return self.account
