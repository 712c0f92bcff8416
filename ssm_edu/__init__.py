"""The executable derivation of Mamba's selective scan."""
