"""The networks of the PersonaLive method. Plain tensors in and out; no files, no state, nothing but torch."""

from personalive.pipelines.personalive.networks.vector_math import settle

settle()
