return ('a'):rep(2e6):find(('a'):rep(1e6) .. 'b', 1, true)
