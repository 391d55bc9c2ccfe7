"""The networks of the PersonaLive method. Plain tensors in and out; no files, no state, nothing but torch."""

from personalive.pipelines.diffusion.networks.mkl_workaround import initialize_vector_math

initialize_vector_math()
