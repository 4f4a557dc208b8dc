"""The crew: who computes after a job was given up, and what is left out."""

from __future__ import annotations

import threading

from enhancekit.batch.crew import Crew, LateError


def test_who_computed_a_job_given_up_computes_no_more():
    release, computers = threading.Event(), []

    def work(job):
        def call():
            computers.append(threading.current_thread())
            release.wait(20 if job == "hangs" else 0)
            return job

        return crew.compute(call)

    crew = Crew(work, size=2, limit=1)
    crew.start("hangs")
    assert isinstance(crew.next()[1], LateError)
    release.set()
    computers[0].join(20)
    assert not computers[0].is_alive()
    for job in range(4):
        crew.start(job)
        assert crew.next() == (job, job)
    assert len({thread.ident for thread in computers[1:]}) == 1
    crew.close()


def test_what_is_given_up_before_its_turn_is_not_computed():
    computed, gate, waiting = [], threading.Event(), threading.Semaphore(0)

    def work(job):
        waiting.release()
        if job == "late":
            gate.wait(20)  # as a slow disk would
        return crew.compute(lambda: computed.append(job))

    crew = Crew(work, size=2, limit=1)
    crew.start("late")
    assert isinstance(crew.next()[1], LateError)
    assert waiting.acquire(timeout=20)
    thread = next(t for t in threading.enumerate() if t.name.endswith("given up"))
    gate.set()
    thread.join(20)
    assert not computed
    crew.start("next")
    assert crew.next()[0] == "next"
    assert computed == ["next"]
    crew.close()
