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
    "QRNN": "J. Bradbury, S. Merity, C. Xiong and R. Socher. Quasi-Recurrent Neural Networks. ICLR 2017, "
    "arXiv:1611.01576.",
    "SRU": "T. Lei, Y. Zhang, S. Wang, H. Dai and Y. Artzi. Simple Recurrent Units for Highly Parallelizable "
    "Recurrence. EMNLP 2018, arXiv:1709.02755.",
    "Hochreiter & Schmidhuber 1997": "S. Hochreiter and J. Schmidhuber. Long Short-Term Memory. Neural Computation "
    "9(8), 1997.",
    "Gers 2000": "F. Gers, J. Schmidhuber and F. Cummins. Learning to Forget: Continual Prediction with LSTM. Neural "
    "Computation 12(10), 2000.",
    "Cho 2014": "K. Cho et al. Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine "
    "Translation. EMNLP 2014, arXiv:1406.1078.",
    "Lim 2024": "Y. H. Lim, Q. Zhu, J. Selfridge and M. F. Kasim. Parallelizing non-linear sequential models over the "
    "sequence length. ICLR 2024, arXiv:2309.12252.",
    "Vaswani 2017": "A. Vaswani et al. Attention Is All You Need. NeurIPS 2017, arXiv:1706.03762.",
    "Rabe & Staats 2021": "M. Rabe and C. Staats. Self-attention Does Not Need O(n²) Memory. arXiv:2112.05682, 2021.",
    "Su 2021": "J. Su et al. RoFormer: Enhanced Transformer with Rotary Position Embedding. arXiv:2104.09864, 2021.",
    "Shazeer 2020": "N. Shazeer. GLU Variants Improve Transformer. arXiv:2002.05202, 2020.",
    "Zhang & Sennrich 2019": "B. Zhang and R. Sennrich. Root Mean Square Layer Normalization. NeurIPS 2019, "
    "arXiv:1910.07467.",
    "Touvron 2023": "H. Touvron et al. LLaMA: Open and Efficient Foundation Language Models. arXiv:2302.13971, 2023.",
    "H3": "D. Fu, T. Dao, K. Saab, A. Thomas, A. Rudra and C. Ré. Hungry Hungry Hippos: Towards Language Modeling with "
    "State Space Models. ICLR 2023, arXiv:2212.14052.",
    "Hyena": "M. Poli, S. Massaroli, E. Nguyen, D. Fu, T. Dao, S. Baccus, Y. Bengio, S. Ermon and C. Ré. Hyena "
    "Hierarchy: Towards Larger Convolutional Language Models. ICML 2023, arXiv:2302.10866.",
    "Linear attention": "A. Katharopoulos, A. Vyas, N. Pappas and F. Fleuret. Transformers are RNNs: Fast "
    "Autoregressive Transformers with Linear Attention. ICML 2020, arXiv:2006.16236.",
    "RetNet": "Y. Sun, L. Dong, S. Huang, S. Ma, Y. Xia, J. Xue, J. Wang and F. Wei. Retentive Network: A Successor to "
    "Transformer for Large Language Models. arXiv:2307.08621, 2023.",
    "GLA": "S. Yang, B. Wang, Y. Shen, R. Panda and Y. Kim. Gated Linear Attention Transformers with "
    "Hardware-Efficient Training. ICML 2024, arXiv:2312.06635.",
    "HGRN": "Z. Qin, S. Yang and Y. Zhong. Hierarchically Gated Recurrent Neural Network for Sequence Modeling. "
    "NeurIPS 2023, arXiv:2311.04823.",
    "RWKV-4": "B. Peng et al. RWKV: Reinventing RNNs for the Transformer Era. Findings of EMNLP 2023, "
    "arXiv:2305.13048.",
    "RWKV-6": "B. Peng et al. Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence. COLM 2024, "
    "arXiv:2404.05892.",
    "RWKV-7": "B. Peng et al. RWKV-7 “Goose” with Expressive Dynamic State Evolution. arXiv:2503.14456, 2025.",
}
