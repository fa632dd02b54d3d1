# The judge of the tests that hold our XPath and schema facets against libxml2:
# cases as JSON on stdin, answers as JSON on stdout.
import json, sys
from lxml import etree

def parse(document):
    return etree.fromstring(document.encode(), etree.XMLParser(strip_cdata=True, resolve_entities=False))

def xpath(cases):
    last, root, number = None, None, None
    for c in cases:
        if c["document"] != last:
            last = c["document"]
            root = parse(last)
            number = {e: i for i, e in enumerate(root.iter())}
        try:
            got = root.getroottree().xpath(c["expression"], namespaces=c["namespaces"] or None, smart_strings=True)
        except Exception as e:
            yield {"error": str(e) or type(e).__name__}
            continue
        if isinstance(got, bool):
            yield {"bool": got}
        elif isinstance(got, float):
            yield {"number": root.getroottree().xpath("string(%s)" % c["expression"], namespaces=c["namespaces"] or None)}
        elif isinstance(got, str):
            yield {"text": str(got)}
        else:
            nodes, texts, xml = [], [], []
            for n in got:
                if isinstance(n, str):
                    p = number[n.getparent()]
                    if n.is_attribute:
                        nodes.append("a%d %s" % (p, n.attrname))
                    else:
                        nodes.append(("t" if n.is_text else "u") + str(p))
                    texts.append(str(n))
                    xml.append("")
                else:
                    nodes.append("e%d" % number[n])
                    texts.append(n.text or "" if n.tag is etree.Comment else n.xpath("string()"))
                    xml.append(etree.tostring(n, with_tail=False, encoding="unicode"))
            yield {"nodes": nodes, "texts": texts, "xml": xml}

def schema(cases):
    compiled = {}
    for c in cases:
        s = c["schema"]
        if s not in compiled:
            try:
                compiled[s] = etree.XMLSchema(parse(s))
            except Exception as e:
                compiled[s] = "schema: " + str(e)
        v = compiled[s]
        if isinstance(v, str):
            yield v
        elif v.validate(parse(c["document"])):
            yield ""
        else:
            yield str(v.error_log.last_error.message if v.error_log.last_error else "invalid")

json.dump(list({"xpath": xpath, "schema": schema}[sys.argv[1]](json.load(sys.stdin))), sys.stdout)
