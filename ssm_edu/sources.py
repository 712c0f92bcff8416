"""What the claims cite: each source's key, as it begins a claim's `source`, and its full reference."""

SOURCES = {
    "Article 1": "“Week 31: 深度学习补遗:Mamba”, a study note on Mamba in Chinese.",
    "Article 2": "“Mamba---Linear-Time Sequence Modeling with Selective State Spaces”, a reading note in Chinese.",
    "Mamba": "A. Gu and T. Dao. Mamba: Linear-Time Sequence Modeling with Selective State Spaces. "
    "arXiv:2312.00752, 2023.",
    "Mamba-2": "T. Dao and A. Gu. Transformers are SSMs: Generalized Models and Efficient Algorithms through "
    "Structured State Space Duality. ICML 2024, arXiv:2405.21060.",
    "Mamba-3": "Mamba-3: Improved Sequence Modeling using State Space Principles. arXiv:2603.15569, 2026.",
    "S4": "A. Gu, K. Goel and C. Ré. Efficiently Modeling Long Sequences with Structured State Spaces. "
    "ICLR 2022, arXiv:2111.00396.",
    "S4D": "A. Gu, A. Gupta, K. Goel and C. Ré. On the Parameterization and Initialization of Diagonal State "
    "Space Models. NeurIPS 2022, arXiv:2206.11893.",
    "HiPPO": "A. Gu, T. Dao, S. Ermon, A. Rudra and C. Ré. HiPPO: Recurrent Memory with Optimal Polynomial "
    "Projections. NeurIPS 2020, arXiv:2008.07669.",
    "S5": "J. Smith, A. Warrington and S. Linderman. Simplified State Space Layers for Sequence Modeling. "
    "ICLR 2023, arXiv:2208.04933.",
    "Van Loan 1978": "C. Van Loan. Computing Integrals Involving the Matrix Exponential. IEEE Transactions on "
    "Automatic Control 23(3), 1978.",
    "Higham 2002": "N. Higham. Accuracy and Stability of Numerical Algorithms, 2nd ed. SIAM, 2002.",
    "Higham 2008": "N. Higham. Functions of Matrices: Theory and Computation. SIAM, 2008.",
    "Hochbruck & Ostermann 2010": "M. Hochbruck and A. Ostermann. Exponential integrators. Acta Numerica 19, 2010.",
    "Franklin 1998": "G. Franklin, J. Powell and M. Workman. Digital Control of Dynamic Systems, 3rd ed. 1998.",
    "Hairer 1996": "E. Hairer and G. Wanner. Solving Ordinary Differential Equations II, 2nd ed. Springer, 1996.",
    "Blelloch 1990": "G. Blelloch. Prefix Sums and Their Applications. CMU-CS-90-190, 1990.",
    "Hillis & Steele 1986": "W. D. Hillis and G. Steele. Data Parallel Algorithms. CACM 29(12), 1986.",
    "Martin & Cundy 2018": "E. Martin and C. Cundy. Parallelizing Linear Recurrent Neural Nets Over Sequence "
    "Length. ICLR 2018, arXiv:1709.04057.",
}
