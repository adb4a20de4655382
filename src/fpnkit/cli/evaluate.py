def add_parser(v):
    return v.add_parser("evaluate")
def run(a): return 0
