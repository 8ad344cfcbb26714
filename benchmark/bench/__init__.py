"""What `make bench` measures: this benchmark's loaders, each with what people use today beside it.

    python -m benchmark.bench [--only loader|startup|memory] [--json FILE] [--quick] [--data PATH] [--images FOLDER]

Every contender of a comparison does the same work on the same images with the same cores, in a process of its own, in turns
(A B C A B C ...). Nothing here is a test: a missed goal is printed as missed.
"""
