//! Text to graph. The result is verified.

use std::collections::HashMap;

use lepton_tensor::{DType, Tensor};

use super::lexer::{Token, tokens};
use crate::attribute::Attribute;
use crate::dim::Dim;
use crate::error::GraphError;
use crate::fact::Fact;
use crate::graph::{Graph, ValueId};
use crate::ops::Op;

/// Deepest nesting of graphs and brackets.
const MAX_DEPTH: usize = 64;

/// Reads a graph; declared result shapes are checked against inference.
pub fn parse(text: &str) -> Result<Graph, GraphError> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0 };
    let graph = parser.graph()?;
    if parser.at != parser.tokens.len() {
        return Err(parser.error("text after the graph"));
    }
    graph.verify()?;
    Ok(graph)
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    at: usize,
    depth: usize,
}

type Names = HashMap<String, ValueId>;

impl Parser {
    fn error(&self, why: impl Into<String>) -> GraphError {
        let line = self.tokens.get(self.at.saturating_sub(1)).map_or(1, |t| t.1);
        GraphError::Text { line, why: why.into() }
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|t| &t.0)
    }

    fn next(&mut self) -> Result<Token, GraphError> {
        let token = self.peek().cloned().ok_or_else(|| self.error("the text ends too early"))?;
        self.at += 1;
        Ok(token)
    }

    fn accept(&mut self, mark: char) -> bool {
        let found = self.peek() == Some(&Token::Mark(mark));
        self.at += found as usize;
        found
    }

    fn expect(&mut self, mark: char) -> Result<(), GraphError> {
        if self.accept(mark) {
            return Ok(());
        }
        Err(self.error(format!("expected `{mark}`, found {:?}", self.peek())))
    }

    fn word(&mut self) -> Result<String, GraphError> {
        match self.next()? {
            Token::Word(word) => Ok(word),
            other => {
                self.at -= 1;
                Err(self.error(format!("expected a word, found {other:?}")))
            }
        }
    }

    fn accept_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(w)) if w == word);
        self.at += found as usize;
        found
    }

    fn enter(&mut self) -> Result<(), GraphError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(self.error("nested too deeply")) } else { Ok(()) }
    }

    fn graph(&mut self) -> Result<Graph, GraphError> {
        self.enter()?;
        if !self.accept_word("graph") {
            return Err(self.error("expected `graph`"));
        }
        let Token::Quoted(name) = self.next()? else {
            return Err(self.error("expected the graph's name in quotes"));
        };
        self.expect('{')?;
        let mut graph = Graph::new(name);
        let mut names = Names::new();
        while !self.accept('}') {
            self.statement(&mut graph, &mut names)?;
        }
        self.depth -= 1;
        Ok(graph)
    }

    fn statement(&mut self, graph: &mut Graph, names: &mut Names) -> Result<(), GraphError> {
        if self.accept_word("input") {
            let name = self.value_name()?;
            self.expect(':')?;
            let fact = self.fact()?;
            let id = graph.add_input(name.clone(), fact);
            names.insert(name, id);
        } else if self.accept_word("const") {
            let name = self.value_name()?;
            self.expect(':')?;
            let fact = self.fact()?;
            self.expect('=')?;
            let tensor = self.tensor(&fact)?;
            let id = graph.add_constant(stored_name(&name), tensor);
            names.insert(name, id);
        } else if self.accept_word("output") {
            let mut outputs = vec![self.lookup(names)?];
            while self.accept(',') {
                outputs.push(self.lookup(names)?);
            }
            graph.set_outputs(outputs);
        } else {
            self.node(graph, names)?;
        }
        Ok(())
    }

    fn value_name(&mut self) -> Result<String, GraphError> {
        self.expect('%')?;
        match self.next()? {
            Token::Word(name) | Token::Quoted(name) => Ok(name),
            Token::Number(number) => Ok(format!("\0{number}")),
            Token::Mark(mark) => Err(self.error(format!("expected a name, found `{mark}`"))),
        }
    }

    fn lookup(&mut self, names: &Names) -> Result<ValueId, GraphError> {
        let name = self.value_name()?;
        names.get(&name).copied().ok_or_else(|| {
            self.error(format!("`%{}` is not defined", name.trim_start_matches('\0')))
        })
    }

    fn node(&mut self, graph: &mut Graph, names: &mut Names) -> Result<(), GraphError> {
        let mut results: Vec<Option<(String, Fact)>> = Vec::new();
        loop {
            results.push(if self.accept_word("_") {
                None
            } else {
                let name = self.value_name()?;
                self.expect(':')?;
                Some((name, self.fact()?))
            });
            if !self.accept(',') {
                break;
            }
        }
        self.expect('=')?;
        let op_name = self.word()?;
        let inputs = self.operands(names)?;
        let attributes = if self.accept('{') { self.attributes()? } else { Vec::new() };
        let name = match self.peek() {
            Some(Token::Quoted(name)) => name.clone(),
            _ => String::new(),
        };
        self.at += !name.is_empty() as usize;
        let given: Vec<(&str, Attribute)> =
            attributes.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        let op = Op::from_parts(&op_name, &given).map_err(|p| self.error(p.to_string()))?;
        let made = graph.add_node(name, op, &inputs)?;
        if made.len() != results.len() {
            let why = format!("`{op_name}` makes {} results, {} named", made.len(), results.len());
            return Err(self.error(why));
        }
        let id = graph.order().last().copied().expect("a node was just added");
        for (position, (value, result)) in made.into_iter().zip(results).enumerate() {
            let Some((name, fact)) = result else {
                graph.drop_output(id, position);
                continue;
            };
            graph.declare(value, &fact).map_err(|why| self.error(why))?;
            graph.set_value_name(value, stored_name(&name));
            names.insert(name, value);
        }
        Ok(())
    }

    fn operands(&mut self, names: &Names) -> Result<Vec<Option<ValueId>>, GraphError> {
        self.expect('(')?;
        let mut inputs = Vec::new();
        if self.accept(')') {
            return Ok(inputs);
        }
        loop {
            inputs.push(if self.accept_word("_") { None } else { Some(self.lookup(names)?) });
            if self.accept(')') {
                return Ok(inputs);
            }
            self.expect(',')?;
        }
    }

    fn attributes(&mut self) -> Result<Vec<(String, Attribute)>, GraphError> {
        let mut list = Vec::new();
        loop {
            let name = self.word()?;
            self.expect('=')?;
            list.push((name, self.attribute()?));
            if self.accept('}') {
                return Ok(list);
            }
            self.expect(',')?;
        }
    }

    fn attribute(&mut self) -> Result<Attribute, GraphError> {
        match self.peek().cloned() {
            Some(Token::Quoted(text)) => {
                self.at += 1;
                Ok(Attribute::Text(text))
            }
            Some(Token::Mark('[')) => {
                let items = self.list(Parser::integer)?;
                Ok(Attribute::Ints(items))
            }
            Some(Token::Word(word)) => match word.as_str() {
                "graph" => Ok(Attribute::Graph(Box::new(self.graph()?))),
                "f" => {
                    self.at += 1;
                    let items = self.list(Parser::number)?;
                    let parse = |t: &String| t.parse::<f32>();
                    let floats: Result<Vec<f32>, _> = items.iter().map(parse).collect();
                    Ok(Attribute::Floats(floats.map_err(|_| self.error("not a float"))?))
                }
                "t" => {
                    self.at += 1;
                    Ok(Attribute::Texts(self.list(Parser::quoted)?))
                }
                "tensor" => {
                    self.at += 1;
                    let fact = self.fact()?;
                    self.expect('=')?;
                    Ok(Attribute::Tensor(self.tensor(&fact)?))
                }
                _ => self.scalar(),
            },
            _ => self.scalar(),
        }
    }

    fn scalar(&mut self) -> Result<Attribute, GraphError> {
        let text = self.number()?;
        if let Ok(value) = text.parse::<i64>() {
            return Ok(Attribute::Int(value));
        }
        text.parse().map(Attribute::Float).map_err(|_| self.error(format!("not a number: {text}")))
    }

    fn quoted(&mut self) -> Result<String, GraphError> {
        match self.next()? {
            Token::Quoted(text) => Ok(text),
            other => Err(self.error(format!("expected a string, found {other:?}"))),
        }
    }

    fn integer(&mut self) -> Result<i64, GraphError> {
        let text = self.number()?;
        text.parse().map_err(|_| self.error(format!("not an integer: {text}")))
    }

    /// A number as written, with its sign; `inf` and `NaN` too.
    fn number(&mut self) -> Result<String, GraphError> {
        let sign = if self.accept('-') { "-" } else { "" };
        match self.next()? {
            Token::Number(digits) => Ok(format!("{sign}{digits}")),
            Token::Word(word) if word == "inf" || word == "NaN" => Ok(format!("{sign}{word}")),
            other => Err(self.error(format!("expected a number, found {other:?}"))),
        }
    }

    fn list<T>(
        &mut self,
        item: fn(&mut Parser) -> Result<T, GraphError>,
    ) -> Result<Vec<T>, GraphError> {
        self.expect('[')?;
        let mut items = Vec::new();
        if self.accept(']') {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.accept(']') {
                return Ok(items);
            }
            self.expect(',')?;
        }
    }

    fn fact(&mut self) -> Result<Fact, GraphError> {
        let word = self.word()?;
        let dtype: DType = word.parse().map_err(|why: String| self.error(why))?;
        Ok(Fact::new(dtype, self.list(Parser::dim)?))
    }

    /// A polynomial: products joined by `+` and `-`.
    fn dim(&mut self) -> Result<Dim, GraphError> {
        self.enter()?;
        let mut sum = if self.accept('-') { -self.product()? } else { self.product()? };
        loop {
            if self.accept('+') {
                sum = sum + self.product()?;
            } else if self.accept('-') {
                sum = sum - self.product()?;
            } else {
                self.depth -= 1;
                return Ok(sum);
            }
        }
    }

    fn product(&mut self) -> Result<Dim, GraphError> {
        let mut product = self.factor()?;
        while self.accept('*') {
            product = product * self.factor()?;
        }
        Ok(product)
    }

    fn factor(&mut self) -> Result<Dim, GraphError> {
        match self.next()? {
            Token::Number(digits) => digits
                .parse()
                .map(Dim::known)
                .map_err(|_| self.error(format!("not an extent: {digits}"))),
            Token::Word(word) if word == "floor" || word == "max" => {
                self.expect('(')?;
                let first = self.dim()?;
                self.expect(',')?;
                let second = self.dim()?;
                self.expect(')')?;
                Ok(if word == "floor" { first.floor_div(&second) } else { first.larger(&second) })
            }
            Token::Word(name) | Token::Quoted(name) => Ok(Dim::symbol(name)),
            Token::Mark(mark) => Err(self.error(format!("expected an extent, found `{mark}`"))),
        }
    }

    fn tensor(&mut self, fact: &Fact) -> Result<Tensor, GraphError> {
        let shape = fact.shape().ok_or_else(|| self.error("a constant needs known extents"))?;
        if self.peek() == Some(&Token::Mark('.')) {
            return Err(self.error("this constant was left out of a brief print"));
        }
        if fact.dtype == DType::Str {
            let strings = self.list(Parser::quoted)?;
            let made = Tensor::from_strings(shape, &strings);
            return made.map_err(|why| self.error(why.to_string()));
        }
        let items = self.list(Parser::number)?;
        let made = if fact.dtype.is_float() {
            let parse = |t: &String| t.parse::<f64>();
            let values: Result<Vec<f64>, _> = items.iter().map(parse).collect();
            let values = values.map_err(|_| self.error("not a float"))?;
            Tensor::from_f64_slice(fact.dtype, shape, &values)
        } else {
            let parse =
                |t: &String| t.parse::<i64>().or_else(|_| t.parse::<u64>().map(|v| v as i64));
            let values: Result<Vec<i64>, _> = items.iter().map(parse).collect();
            let values = values.map_err(|_| self.error("not an integer"))?;
            Tensor::from_i64_slice(fact.dtype, shape, &values)
        };
        made.map_err(|why| self.error(why.to_string()))
    }
}

/// Numbered values have no name in the graph.
fn stored_name(name: &str) -> String {
    if name.starts_with('\0') { String::new() } else { name.to_string() }
}
