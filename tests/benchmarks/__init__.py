"""The parts of benchmarks/ that compute: is a known delay found, and is each loss counted?"""
