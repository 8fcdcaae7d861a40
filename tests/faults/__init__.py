"""Faults between a client and a server, and the ways in which a program ends.

Each kind of leak or harm, and where its absence is proved, below ``tests/``:

- a way out gives what was sent no time:
  faults/test_ways_out.py, process/, cli/, examples/
- a signal strikes between two steps:
  process/test_struck.py, unit/test_strikes.py
- a caller leaves without a word:
  faults/test_ways_out.py, faults/test_cancellation.py, examples/test_backends.py
- a block or fleet is held beyond its client or loop:
  fleet/test_client_first.py, faults/test_ways_out.py
- a caller's short deadline ends the client's knowledge:
  unit/test_client.py, faults/test_cancellation.py
- an answer is thrown away after a stall:
  process/test_callers.py (frozen), unit/test_transport.py
- what is settled keeps a slot, row, budget or permit:
  fleet/test_late.py, settling/test_fleet.py, settling/test_cost.py
- a session that is over as it comes is handed out:
  unit/test_client.py, fleet/test_late.py
- a failed stop is given up:
  unit/test_seen_through.py
- what was not sent goes out for nobody:
  faults/test_ways_out.py, fleet/test_late.py
- a connection is used that the server has closed:
  faults/test_connections.py
- an answer is hidden: large head, cut body, UTF-16:
  faults/test_connections.py, unit/test_wire.py
- a call waits for other people's threads:
  faults/test_connections.py
- a hook breaks a call:
  unit/test_client.py, unit/test_bad_input.py, fleet/test_ends.py, fleet/test_watchdog.py
- what a server says stalls, garbles or leaks:
  unit/test_wire.py, unit/test_shown.py, security/test_secrets.py, faults/test_matrix.py
- bad input gets as far as the wire:
  unit/test_bad_input.py, unit/test_checks.py
- a proxy's refusal is repeated; credentials meet:
  faults/test_connections.py, faults/test_setup.py
- recorders and monitors break:
  unit/test_transport.py
- a waiter is not woken:
  unit/test_queue.py, unit/test_waiting.py, unit/test_client.py
- any of these, by chance and in numbers:
  property/, settling/test_simulation.py, bench/soak.py
"""
