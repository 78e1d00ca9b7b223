"""
`llmproxy rehearse`: a configuration, served against fake providers that fail by a script.

    script       which provider fails how, and when
    leaping      an event loop in which waiting takes no time
    stand_in     the configuration as it is rehearsed: no key, no address of the operator's
    diverted     the transport: what was to go to a provider goes to its fake
    provider     a fake provider on loopback
    spoken       what a provider says, in its own protocol: pure
    questions    what clients ask of each route
    client       one call of a client, and what came of it
    tally        what is counted
    advice       what the configuration does without
    rehearsal    all of it together: one day
"""
