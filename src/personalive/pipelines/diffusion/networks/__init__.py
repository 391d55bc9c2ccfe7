"""The networks of the PersonaLive method: tensors in and out, no files or state, only torch and `kernels`."""

from personalive.pipelines.diffusion.networks.mkl_workaround import initialize_vector_math

initialize_vector_math()
