"""
Turning failures of upstreams into answers: tries, back-off, budgets, breakers, and groups of LLMs that fall over.

    failure     what a failure is worth: nothing, another key, another LLM, another try
    backoff     how long to wait before the next try
    budget      how many tries an LLM may see beyond its calls
    breaker, breaker_state    whether an LLM is asked at all
    probe       a question that an LLM is asked to know how it is
    probe       how often an LLM is asked for a sign of life
    commit      up to which point a failure is hidden
    turns, fair_queue         who waits for a place where there is none, and whose turn it is
    tries       the tries of one exchange, and its deadline
"""
