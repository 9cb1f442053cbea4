# Python 2.7, run by Jython: under_jython.py SITE SPEC. Starts the suite's fuzzing client if the spec names servers, and
# else its fuzzing server on a port that the kernel chooses, and prints "listening URL".
# Modules that it imports for other modes (serving reports, TLS) and that need C are replaced by empty ones.
import json
import sys
import types

site, spec_file = sys.argv[1:3]
sys.path[:0] = [site, site + "/autobahntestsuite"]


def replace(name, **attributes):
    module = types.ModuleType(name)
    module.__dict__.update(attributes)
    sys.modules[name] = module
    return module


from twisted.internet import selectreactor
selectreactor.install()
import twisted.internet
import twisted.web

replace("pkg_resources", resource_filename=lambda package, name: "%s/%s/%s" % (site, package, name))
replace("jinja2")
replace("twisted.web.server", Site=None)
replace("twisted.web.static", File=None)
twisted.internet.ssl = replace("twisted.internet.ssl", ClientContextFactory=lambda: None)
replace("autobahntestsuite", version="25.10.1").__path__ = [site + "/autobahntestsuite"]

import fuzzing
from twisted.internet import protocol, reactor
from twisted.python import log

log.startLogging(sys.stderr, setStdout=False)

spec = json.load(open(spec_file))
if "servers" in spec:
    fuzzing.startClient(spec)
else:
    # The factory wants to know its port, so another one listens until that is known; nobody connects before.
    port = reactor.listenTCP(0, protocol.Factory(), interface="127.0.0.1")
    spec["url"] = "ws://127.0.0.1:%d" % port.getHost().port
    port.factory = fuzzing.FuzzingServerFactory(spec)
    print "listening " + spec["url"]
    sys.stdout.flush()
reactor.run()
