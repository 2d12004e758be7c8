"""gbnf_ambiguity: which grammars make llama.cpp follow too many ways at a time."""

import time

import pytest

from edge_eft.engine.constraint import Constraint
from edge_eft.errors import RequestError

WELL_KNOWN = {
    "json": r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
""",
    "arithmetic": r"""
root  ::= (expr "=" ws term "\n")+
expr  ::= term ([-+*/] term)*
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num   ::= [0-9]+ ws
ws    ::= [ \t\n]*
""",
    "list": r"""
root ::= item+
item ::= "- " [^\r\n\x0b\x0c\x85\u2028\u2029]+ "\n"
""",
    "chess": r"""
root     ::= "1. " move " " move "\n" ([1-9] [0-9]? ". " move " " move "\n")+
move     ::= (pawn | nonpawn | castle) [+#]?
nonpawn  ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]
pawn     ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?
castle   ::= "O-O" "-O"?
""",
    "c": r"""
root ::= (declaration)*
declaration ::= dataType identifier "(" parameter? ")" "{" statement* "}"
dataType  ::= "int" ws | "float" ws | "char" ws
identifier ::= [a-zA-Z_] [a-zA-Z_0-9]*
parameter ::= dataType identifier
statement ::=
    ( dataType identifier ws "=" ws expression ";" ) |
    ( identifier ws "=" ws expression ";" ) |
    ( identifier ws "(" argList? ")" ";" ) |
    ( "return" ws expression ";" ) |
    ( "while" "(" condition ")" "{" statement* "}" ) |
    ( "for" "(" forInit ";" ws condition ";" ws forUpdate ")" "{" statement* "}" ) |
    ( "if" "(" condition ")" "{" statement* "}" ("else" "{" statement* "}")? ) |
    ( singleLineComment ) |
    ( multiLineComment )
forInit ::= dataType identifier ws "=" ws expression | identifier ws "=" ws expression
forUpdate ::= identifier ws "=" ws expression
condition ::= expression relationOperator expression
relationOperator ::= ("<=" | "<" | "==" | "!=" | ">=" | ">")
expression ::= term (("+" | "-") term)*
term ::= factor(("*" | "/") factor)*
factor ::= identifier | number | unaryTerm | funcCall | parenExpression
unaryTerm ::= "-" factor
funcCall ::= identifier "(" argList? ")"
parenExpression ::= "(" ws expression ws ")"
argList ::= expression ("," ws expression)*
number ::= [0-9]+
singleLineComment ::= "//" [^\n]* "\n"
multiLineComment ::= "/*" ( [^*] | ("*" [^/]) )* "*/"
ws ::= ([ \t\n]+)
""",
    "words that begin alike": 'root ::= w (" " w)*\nw ::= '
    + " | ".join(f'"http{i}"' for i in range(5_000)),
}


@pytest.mark.parametrize("name", WELL_KNOWN)
def test_a_grammar_as_people_write_them_is_taken_quickly(name):
    begun = time.thread_time()
    Constraint(gbnf=WELL_KNOWN[name])
    assert time.thread_time() - begun < 4


@pytest.mark.parametrize("prefix", ["", '"only after a long word" ', "[^a-z0-9]+ "])
def test_the_rule_is_named_wherever_it_stands(prefix):
    rules = [
        f"r{i} ::= " + " | ".join(f'[a-z] r{i + 1} "{c}"' for c in "ABCDEFGHIJ") for i in range(6)
    ]
    text = "\n".join([f"root ::= {prefix}r0", *rules, 'r6 ::= "!"'])
    with pytest.raises(RequestError, match=r"too ambiguous: .* rule r[0-9] ") as error:
        Constraint(gbnf=text)
    assert "different characters" in str(error.value)


def test_what_is_ambiguous_only_one_after_the_other_is_seen():
    many = " | ".join(['"x"'] * 6)
    Constraint(gbnf=f"root ::= w w\nw ::= {many}")
    with pytest.raises(RequestError, match="too ambiguous"):
        Constraint(gbnf=f'root ::= "a long beginning" w w w w w w\nw ::= {many}')


def test_alternatives_of_different_characters_are_not_ambiguous():
    """However many they are, and whatever a class is written of."""
    signs = "abcdefghijklmnopqrstuvwxyz"
    rules = [f"r{i} ::= " + " | ".join(f'"{c}" r{i + 1}' for c in signs) for i in range(6)]
    Constraint(gbnf="\n".join(["root ::= r0", *rules, r"r6 ::= [aaaaa-cb-da-zz\x61]*"]))
    Constraint(gbnf="\n".join(["root ::= r0", *rules, r"r6 ::= [^b-da-c]* [b-d]"]))
