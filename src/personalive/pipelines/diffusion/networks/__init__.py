"""The networks of the PersonaLive method: tensors in and out, without files or state; they need torch alone."""

from personalive.pipelines.diffusion.networks.mkl_workaround import initialize_vector_math

initialize_vector_math()
