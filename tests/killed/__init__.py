"""Promise 4 and the crash side of promise 3: every part is killed, nothing is lost, nothing shows twice."""
