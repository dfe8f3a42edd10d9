"""What holds for every test."""

from hypothesis import HealthCheck, settings

# a busy machine makes examples slow, which says nothing about the code
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
