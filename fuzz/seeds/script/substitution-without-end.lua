return #('a'):rep(1e6):gsub('a', ('b'):rep(1e6))
