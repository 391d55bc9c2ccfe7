"""What NVIDIA's documents say of graphics cards, as far as it bounds a step.

The documents: *Turing*: NVIDIA Turing GPU Architecture whitepaper (RTX 2080 Ti, reference clock), the T4 datasheet,
and the RTX 2060's product page; *GA102*: NVIDIA Ampere GA102 GPU Architecture whitepaper, V2 (RTX 30), and the RTX
3060's product page; *A100*: NVIDIA A100 Tensor Core GPU Architecture whitepaper; *A10*: its datasheet; *Ada*:
NVIDIA Ada GPU Architecture whitepaper, V2.02, and its L4 and L40S datasheets (RTX 4070 and 4060 Ti: product pages);
*Blackwell*: NVIDIA RTX Blackwell GPU Architecture whitepaper; *Hopper*: NVIDIA H100 and H200 datasheets (SXM).

Rates are dense: where a datasheet states "with sparsity", half of it. Products are of 16-bit floats summed in 32
bits, which GeForce cards from Turing to Blackwell do at half the rate of products summed in 16 bits (whitepapers,
"Peak FP16 Tensor TFLOPS with FP32 Accumulate"), and cards for data centres at the full rate. In 8 bits, summed in
32 bits too, all that can multiply them have twice the rate. A datasheet's rate is its multiprocessors × boost
clock × what one does in a cycle; `tests/benchmarks/test_datasheets.py` holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass

EXPONENTIALS = 16
"""Of a multiprocessor in a cycle, capabilities 7.5 to 12.0 (CUDA C++ Programming Guide, arithmetic
instructions)."""
EIGHT_BITS = (8, 9)
"""The first capability that multiplies 8-bit floats (the same guide)."""


@dataclass(frozen=True, slots=True)
class Card:
    """A graphics card's datasheet.

    In order: GB of memory, GB/s, multiprocessors, boost clock in GHz, products in TFLOP/s, float32 operations of a
    multiprocessor in a cycle, watts.
    """

    name: str
    capability: tuple[int, int]
    memory: float
    bandwidth: float
    processors: int
    clock: float
    tensor: float
    lanes: int
    watts: int
    source: str

    @property
    def tensor8(self) -> float | None:
        """Products in 8 bits, TFLOP/s; None where there are none."""
        return 2 * self.tensor if self.capability >= EIGHT_BITS else None

    @property
    def float32(self) -> float:
        """Arithmetic in 32 bits, TFLOP/s."""
        return 2 * self.lanes * self.processors * self.clock / 1000

    @property
    def exponentials(self) -> float:
        """Exponentials, 10¹² a second."""
        return EXPONENTIALS * self.processors * self.clock / 1000


CARDS = (
    Card("T4", (7, 5), 16, 320, 40, 1.590, 65.0, 64, 70, "Turing"),
    Card("RTX 2060", (7, 5), 6, 336, 30, 1.680, 25.8, 64, 160, "Turing"),
    Card("RTX 2080 Ti", (7, 5), 11, 616, 68, 1.545, 53.8, 64, 250, "Turing"),
    Card("RTX 3060", (8, 6), 12, 360, 28, 1.777, 25.5, 128, 170, "GA102"),
    Card("RTX 3070", (8, 6), 8, 448, 46, 1.725, 40.6, 128, 220, "GA102"),
    Card("RTX 3080", (8, 6), 10, 760, 68, 1.710, 59.5, 128, 320, "GA102"),
    Card("RTX 3090", (8, 6), 24, 936, 82, 1.695, 71.0, 128, 350, "GA102"),
    Card("RTX 4060 Ti", (8, 9), 8, 288, 34, 2.535, 44.1, 128, 160, "Ada"),
    Card("RTX 4070", (8, 9), 12, 504, 46, 2.475, 58.3, 128, 200, "Ada"),
    Card("RTX 4080", (8, 9), 16, 717, 76, 2.505, 97.5, 128, 320, "Ada"),
    Card("RTX 4090", (8, 9), 24, 1008, 128, 2.520, 165.2, 128, 450, "Ada"),
    Card("RTX 5070 Ti", (12, 0), 16, 896, 70, 2.452, 87.9, 128, 300, "Blackwell"),
    Card("RTX 5080", (12, 0), 16, 960, 84, 2.617, 112.6, 128, 360, "Blackwell"),
    Card("RTX 5090", (12, 0), 32, 1792, 170, 2.407, 209.5, 128, 575, "Blackwell"),
    Card("L4", (8, 9), 24, 300, 58, 2.040, 121.0, 128, 72, "Ada"),
    Card("A10", (8, 6), 24, 600, 72, 1.695, 125.0, 128, 150, "A10"),
    Card("A100", (8, 0), 40, 1555, 108, 1.410, 312.0, 64, 400, "A100"),
    Card("L40S", (8, 9), 48, 864, 142, 2.520, 362.0, 128, 350, "Ada"),
    Card("H100", (9, 0), 80, 3350, 132, 1.830, 989.4, 128, 700, "Hopper"),
    Card("H200", (9, 0), 141, 4800, 132, 1.830, 989.4, 128, 700, "Hopper"),
)
"""Where a card comes with different memories, the smaller; laptops' cards of the same names are slower."""


def card(name: str) -> Card:
    """Return the card of that name. Raises KeyError for one that is not in `CARDS`."""
    return next((each for each in CARDS if each.name == name), None) or _unknown(name)


def _unknown(name: str) -> Card:
    raise KeyError(name)
