def combine(second, first):
    a2, b2 = second
    a1, b1 = first
    return a2 * a1, a2 * b1 + b2
