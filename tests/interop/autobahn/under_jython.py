# Python 2.7, run by Jython: under_jython.py SITE SPEC. Starts the suite's fuzzing client.
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
from twisted.internet import reactor

fuzzing.startClient(json.load(open(spec_file)))
reactor.run()
