"""What crosses between the parts of HELIOS, named once: what a pod is told (`limits`), what it says
(`telemetry`), what a profiling Job hands back (`results`), and in all of them what serves (`serves`).

Plain dataclasses with units, and their JSON (`codec`); imported by the server, the decisions and the API
alike. It must import neither protobuf nor grpc: `wire` alone maps to the messages of helios.v1, for those
who speak to another process.
"""

VERSION = 1
"""Of the contract, told in telemetry; 0 is what 0.1.0 knows. Raised by one with every release that adds a
field (`since` of the field), so that nobody is sent what it does not know."""
