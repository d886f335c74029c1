"""What schemathesis cannot read from the document; it loads this file."""

import itertools
import json
import os
import re
import string

import accounts
import schemathesis
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.openapi.checks import RejectedPositiveData

URL = os.environ["CONFORMANCE_URL"]
KEYS = itertools.count()
# Somebody for admins to promote and to disable.
SUBJECT = accounts.register(URL)[1]
# Refusals that depend on what the shop has, and on no form of the data that a schema could describe.
STATE = {
    "cart_empty",
    "duplicate_item",  # two lines of one product
    "currency_fixed",  # that of the product
    "currency_required",  # of a shop with several
    "idempotency_key_reused",
    "invalid_cursor",  # not one that the list gave
    "invalid_number",  # its last sign does not fit
    "invalid_phone",  # not one that can be dialled
    "invalid_postal_code",  # of another form than its country's
    "invalid_reset_token",  # only mails have one
    "invalid_verification_token",  # the same
    "invalid_ticket",  # only the shop gives them
    "invalid_signature",  # only the payment provider can sign
    "not_allowed",  # beside another field or parameter
    "not_chargeable",  # between two steps of its currency
    "not_in_order",  # a product of another one
    "password_too_common",  # the list is long
    "precondition_failed",
    "price_changed",  # another total than was expected
    "unknown_address",
    "too_deep",  # below how many levels of categories
    "unknown_category",
    "unknown_currency",  # three letters that are none
    "unknown_image",  # not one of this product
    "unknown_parcel",  # not one of this order
    "unknown_product",
    "wrong_password",
}
# Parameters that do not go together.
TOGETHER = {
    ("/sort", "invalid_value"),  # by relevance, to nothing
    ("/min_price", "out_of_range"),  # above max_price
    ("/min_total", "out_of_range"),  # above max_total
    ("/currency", "missing_field"),  # of min_total and max_total
    ("/currency", "invalid_value"),  # three letters that are none
    ("/expected_total/currency", "invalid_value"),
    ("/name", "missing_field"),  # nor language, of an account that is to change
    ("/slug", "invalid_value"),  # not as one is made of a name
    ("/parent", "invalid_value"),  # itself, or one within it
    ("/move_to", "invalid_value"),
    ("/email", "invalid_email"),  # of orders' customers
    ("/placed_from", "invalid_value"),  # a day that no month has
    ("/placed_to", "invalid_value"),
    ("/from", "invalid_value"),  # the same
    ("/to", "invalid_value"),
    ("/price/amount", "out_of_range"),  # above the most of its currency
    ("/amount/amount", "out_of_range"),
    ("/link", "missing_field"),  # a feed needs one
    ("/link", "invalid_value"),  # nothing but a feed has one
}
# Parts of an address that its country needs.
PARTS = ("/city", "/postal_code")
# An event of a stream. Of that, OpenAPI 3.1 can only say that it is text, and it is tried event by event.
EVENT = {
    "type": "object",
    "required": ["id", "event", "data"],
    "properties": {"id": {"type": "string"}, "event": {"const": "status"}, "data": {"type": "string", "pattern": "^{.*}$"}},
}
# Bodies of which the document says no more than that they are text or bytes.
OPAQUE = {"import_products", "put_product_image"}


@schemathesis.serializer("application/x-ndjson")
def ndjson(context, value):
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.hook
def before_load_schema(context, raw_schema):
    answers = (
        answer
        for path in raw_schema["paths"].values()
        for operation in path.values()
        for answer in operation["responses"].values()
    )
    for answer in answers:
        if stream := answer.get("content", {}).get("text/event-stream"):
            stream["schema"] = EVENT


@schemathesis.hook
def before_add_examples(context, examples):
    """What only who has an account can know."""
    name = operation_id(context.operation)
    if name == "login":
        body = {"email": accounts.register(URL)[0], "password": accounts.PASSWORD}
    elif name in {"refresh", "logout"}:
        body = {"refresh_token": accounts.login(URL, accounts.register(URL)[0])["refresh_token"]}
    elif name == "change_password":
        body = {"current_password": accounts.PASSWORD, "new_password": accounts.PASSWORD}
    elif name == "change_email":
        body = {"current_password": accounts.PASSWORD, "email": f"{next(KEYS)}.{os.getpid()}@example.test"}
    else:
        return
    examples.append(context.operation.Case(body=body, media_type="application/json"))


@schemathesis.hook("before_add_examples")
def hard_texts(context, examples):
    """Each text that a query may hold, full of marks: what is drawn at random from all of Unicode never has many of one
    kind in a row, and that is what parsers behind an API give up on."""
    parameters = context.operation.definition.raw.get("parameters", [])
    path = {parameter["name"]: "0" for parameter in parameters if parameter["in"] == "path"}
    for parameter in parameters:
        schema = parameter.get("schema", {})
        if parameter["in"] == "query" and is_free_text(schema):
            most = schema.get("maxLength", 200)
            for marks in MARKS:
                text = (marks * most)[:most]
                examples.append(context.operation.Case(path_parameters=path, query={parameter["name"]: text}))


# One mark, and each with a dash or a quote in turn.
MARKS = [*string.punctuation, *(mark + other for mark in string.punctuation + " a" for other in "-\"" if mark != other)]


def is_free_text(schema):
    # Without a pattern, or with one that says only what is not in it.
    pattern = schema.get("pattern", "").removeprefix("^")
    free = "enum" not in schema and "format" not in schema and (not pattern or pattern.startswith("[^"))
    return "string" in schema.get("type", []) and free


@schemathesis.hook
def before_call(context, case, kwargs):
    """Leads what would take the accounts of this run away from it to others."""
    name = operation_id(case.operation)
    if name in {"delete_me", "delete_sessions"} and is_token((case.headers or {}).get("Authorization")):
        token = accounts.login(URL, accounts.register(URL)[0])["access_token"]
        case.headers["Authorization"] = f"Bearer {token}"
    if name == "update_user" and case.method == "PATCH" and is_id(case.path_parameters.get("id")):
        case.path_parameters["id"] = SUBJECT
    key = (case.headers or {}).get("Idempotency-Key")
    if name == "create_address" and isinstance(key, str) and re.fullmatch("[!-~]{1,200}", key):
        # A repeated answer may be of an address that was removed since: a stateful test takes it for one that is there.
        case.headers["Idempotency-Key"] = f"{key}-{next(KEYS)}"


def operation_id(operation):
    return operation.definition.raw.get("operationId")


def is_id(value):
    return isinstance(value, str) and len(value) == 36


def is_token(header):
    """Rather than something made up, which has to be refused as it is."""
    return isinstance(header, str) and header.startswith("Bearer ") and header.count(".") == 2


@schemathesis.hook
def filter_failure(context, failure, case, response):
    if isinstance(failure, RejectedPositiveData):
        return not beyond_schemas(case, response)
    # Its lines may be anything, and are answered one by one.
    return not (isinstance(failure, AcceptedNegativeData) and operation_id(case.operation) == "import_products")


def beyond_schemas(case, response):
    """Whether no schema could have told that this would be refused."""
    if operation_id(case.operation) in OPAQUE and response.status_code in {415, 422}:
        return True
    # 5.0 is an integer in JSON Schema. Here it isn't: no number is ever a float.
    if response.status_code == 422 and has_float(case.body):
        return True
    try:
        problem = json.loads(response.content)
        found = problem.get("errors") or [{"pointer": "", "code": problem["code"]}]
        return all(map(goes_by_more, found))
    except (ValueError, AttributeError, KeyError):
        return False


def goes_by_more(error):
    code, pointer = error["code"], error["pointer"]
    part = pointer.endswith(PARTS) and code in {"missing_field", "too_short"}
    return part or code in STATE or (pointer, code) in TOGETHER


def has_float(value):
    if isinstance(value, dict):
        return any(map(has_float, value.values()))
    return any(map(has_float, value)) if isinstance(value, list) else isinstance(value, float)
