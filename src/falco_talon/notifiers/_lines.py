"""A report as lines of text, ``Key: value``."""

from falco_talon.report import Report


def lines(report: Report) -> str:
    """Return the report, one line for each thing it tells, ending with a newline.

    Status, message and trace id are always there; objects stand in the order of their names.
    """
    fields = [
        ("Rule", report.rule),
        ("Action", report.action),
        ("Actionner", report.actionner),
        ("Event", report.event),
        *((key.capitalize(), report.objects[key]) for key in sorted(report.objects)),
        ("Error", report.error),
        ("Result", report.result),
        ("Output", report.output),
        ("OutputTarget", report.output_target),
    ]
    told = [f"Status: {report.status}", f"Message: {report.message}"]
    told += [f"{key}: {value}" for key, value in fields if value]
    told.append(f"TraceID: {report.trace_id}")
    return "\n".join(told) + "\n"
