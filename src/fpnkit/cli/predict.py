def add_parser(v):
    return v.add_parser("predict")
def run(a): return 0
